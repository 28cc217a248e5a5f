"""What a converted folder is for: classifying images, measuring accuracy, measuring speed."""
