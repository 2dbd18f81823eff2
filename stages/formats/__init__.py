"""What stands on disk between stages."""
