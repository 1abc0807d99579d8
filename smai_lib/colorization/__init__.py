"""Q2: colours for grey photographs."""
