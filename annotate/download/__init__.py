"""Download: URL lists to tars of images, with robots.txt and opt-outs respected."""
