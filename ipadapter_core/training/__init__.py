"""Training an adapter as the paper does (section 4.1.2): everything that decides the weights, without a host."""
