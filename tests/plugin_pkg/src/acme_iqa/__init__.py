"""A defense and an attack for iqa-robust, as somebody outside of the project would publish them."""
