"""The part of RestMQ that twistd runs: options, services in order, workers, the private Redis or Valkey."""
