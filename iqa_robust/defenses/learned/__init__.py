"""Networks that clean the image before the model."""
