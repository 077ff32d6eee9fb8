"""One file a family, named after the `model_type` of `config.json`; nothing else lists them."""
