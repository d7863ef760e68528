"""The networks: the search space's encoder with its heads, block supernets, and ResNet18."""
