"""Clips on disk: sources of many kinds are checked and packed once; training reads windows of the pack."""
