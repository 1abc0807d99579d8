"""What the networks of Q1 learned: their feature maps, probed and browsed."""
