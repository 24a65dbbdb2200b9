"""The log: ordered records on disk, one replica of one partition each.

`manager.LogManager` owns the log directories and all logs in them; `log.Log` is one log: a row of
`segment.Segment` files with sparse `index` files, of which only the last grows. Beside the records
a log keeps who led when (`epochs`), what each producer sent last (`producer_state`) and the id of
its topic (`partition_metadata`). `recovery` makes a log right again after a kill or a power cut;
`checkpoint` files say how far each log is durable, where it starts and what is committed;
`loss_receipts` say what a truncation threw away. `config` knows every topic-level config of Kafka.

Two edges: `files.Files` is the only way to the disk, and blocking work goes through `Offload`.
Everything else runs on the loop; the files' names and meaning are Kafka's.

Invariants, tested against a disk that forgets what was not fsynced and tears what was written last:

- what a write call returned survives the death of the process, what was flushed that of the machine;
- after either the log is a prefix of what it was, whole batches only, and its indexes, epochs and
  producers agree with it;
- a directory whose disk failed once serves nothing any more.

Who leads, what is committed and where to truncate is for :mod:`kafkalite.replication` to say.
"""
