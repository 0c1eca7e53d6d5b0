"""How many machines an audience needs: arithmetic on measured figures, without clocks, sockets or files."""
