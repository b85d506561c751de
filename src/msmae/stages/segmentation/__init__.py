"""What ``msmae segment`` is made of: where the encoder comes from, the data, the training, the evidence, the use."""
