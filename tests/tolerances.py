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

# Graphs in the form for CUDA from the exact ones, embeddings scaled to length 1, others as shares
# of the largest number: other operators sum in another order. The CPU rounds to fp16 only between
# operators.
CUDA_FORM_REL = {"fp32": 2e-5, "fp16": 2e-2}

# softmax, l2_normalize and cosine_similarity against float64.
MATHS_ABS = 1e-6

# OWLv2's pixels, normalised: transformers rounds to float32 at each of five steps, vlrt at others.
PADDED_PIXELS_ABS = 1e-5

# Outputs of the OWL families' image graph from transformers'. Class embeddings are scaled to length
# 1; boxes are fractions of the picture; shift, scale and objectness of seeded checkpoints have
# magnitudes of about 1.
OWL_ABS = {
    "fp32": {"image_class_embeds": 1e-4, "values": 1e-4},
    "fp16": {"image_class_embeds": 5e-3, "values": 2e-2},
    "int8": {"image_class_embeds": 0.1, "values": 0.3},
}

# Logits and scores of objects, and their boxes as fractions of the picture's longer side.
OBJECT_ABS = {"fp32": 1e-4}

# A detector's logits out of given embeddings, against float64 and transformers' class head.
CLASS_LOGITS_ABS = 1e-5

# The display score of detection by example: a difference divided by 0.9 of the best score.
ALPHA_ABS = 1e-5

# Boxes between 0 and 1000 against float64: formats there and back (relative to the largest
# coordinate), GIoU, and the scores that soft-NMS leaves.
BOX_ROUND_TRIP_REL = 1e-6
GIOU_ABS = 1e-6
SOFT_SCORE_ABS = 1e-5

# ViLT's logits from transformers', as shares of the largest of them: seeded checkpoints have some
# of about 10, and int8 rounds every layer's input to 1/255 of its range.
VILT_UNIT = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.1}

# ViLT's logits at full size from transformers', as they are.
VILT_ABS = {"fp32": 1e-4}

# transformers' own logits with its patches in another order.
VILT_ORDER_ABS = 1e-5

# ViLT's scores, sigmoid or softmax, whose slope is 1/4 at the most, from transformers' logits.
VILT_SCORE_ABS = {"fp32": 3e-5}
