"""The parts of `benchmarks.all`: each measures all contenders in turns, and returns figures."""
