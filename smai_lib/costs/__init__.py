"""What the networks cost: formulas by hand, derived, timed, and counted by other tools."""
