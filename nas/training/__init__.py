"""Training: the one loop, block-wise distillation, the teacher's feature maps, soft targets."""
