"""What every command uses: params, errors, files and text."""
