"""How good an image is: metrics, scores, and the methods to compare with."""
