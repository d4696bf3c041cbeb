"""What worker processes do in the tests of races."""
