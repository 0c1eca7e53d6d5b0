"""Support for a process: tasks, threads, an event loop, signals and a log."""
