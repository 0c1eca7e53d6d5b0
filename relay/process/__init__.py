"""What a process needs beside its work: tasks, threads, an event loop, signals, and a log."""
