"""How a procedural street is drawn: camera and canvas, backdrop, furniture, traffic, people, light."""
