"""foreframe learns to predict video from what is about to be done."""

__version__ = "0.1.0"
