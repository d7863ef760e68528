"""The networks: the search space's encoder with its heads, block supernets, ResNet18 and ResNet50."""
