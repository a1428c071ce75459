"""What runs inside a training pod: data preparation and every training stage."""
