"""Figures and pages that show how a training went and what a model predicts."""
