"""Training of SDP-GAN styles; nothing here is needed for inference."""
