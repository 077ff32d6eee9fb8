"""vlrt as a service: `vlrt serve`. It needs the extra `server`; nothing else imports it.

All that it does is in `vlrt`. What is here brings requests to the models and keeps them apart:
`batching` runs what several requests want of a graph as one, `jobs` bounds what is taken on, and
the rest speaks HTTP.
"""
