"""What the colorization network costs: formulas by hand, and counted on the module."""
