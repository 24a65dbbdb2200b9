"""What travels between brokers and clients: messages, errors, and record batches.

One module an API holds its request and response as typed structs; :mod:`.api` lists them all,
:mod:`.codec` turns them into MessagePack or JSON and back, :mod:`.errors` has one class for each
of Kafka's error codes, and :mod:`.record_batch` alone knows what the body of a batch looks like.
No IO happens here.
"""
