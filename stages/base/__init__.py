"""What every command stands on."""
