"""Q1: class and ink of Fashion-MNIST by one network."""
