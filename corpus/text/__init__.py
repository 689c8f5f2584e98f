"""What several stages do with text: segmentation and the n-gram language model."""
