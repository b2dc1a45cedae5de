"""The machine: devices, cores and memory, processes, signals, and progress on the terminal."""
