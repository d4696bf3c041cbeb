"""The parts of the with_lock command: the lock, the process under it, signals and the terminal."""
