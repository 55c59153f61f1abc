"""CycleGAN, to be read: models, losses, data, the step, the loop, the scores."""
