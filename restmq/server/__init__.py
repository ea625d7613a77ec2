"""What twistd runs: options, services in order of their start, workers, the private Redis or Valkey."""
