"""Every tolerance of the tests, by stage and precision. What is not here is compared exactly."""

# Largest difference of one number of an embedding of length 1 from transformers'.
EMBED_ABS = {"fp32": 1e-4}

# Lowest cosine between an embedding and transformers'.
EMBED_COSINE = {"fp32": 0.999999, "fp16": 0.9999, "int8": 0.995}

# Largest difference of a probability from transformers' softmax over its own logits, whose scale
# (14.3 in seeded checkpoints) multiplies the error of an embedding.
PROBABILITY_ABS = {"fp32": 1e-4}

# The same picture or text in batches of other sizes, other threads: only the order of sums moves.
BATCHING_ABS = {"fp32": 1e-5}

# softmax, l2_normalize and cosine_similarity against float64.
MATHS_ABS = 1e-6
