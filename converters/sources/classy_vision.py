"""ClassyVision's full nest, a bare trunk, a model with attached heads; SWAG's flat files."""
