"""Time to a given control accuracy on MNIST: docs/record.md has the rules."""
