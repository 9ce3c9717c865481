/* Every limit that a peer, a disk or an operator can run into, with its reason. Exceeding one is a
 * defined error, never a cut. The folder that enforces a limit is named in its line. */
#ifndef CAIRN_BASE_LIMITS_H
#define CAIRN_BASE_LIMITS_H

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

/* base */
#define LIMIT_LOG_VALUE_BYTES (4 * KIB)		 /* longer values are cut, with their length behind them */
#define LIMIT_LOG_LINE_BYTES (128 * KIB)	 /* a few values of six bytes for each of theirs */
#define LIMIT_CONFIG_FILE_BYTES (1 * MIB)	 /* settings are written by people */
#define LIMIT_SECRET_FILE_BYTES (64 * KIB)	 /* a password, token or key */

/* record, journal */
#define LIMIT_STREAM_NAME_BYTES ((size_t)500)	 /* LMDB keys hold 511 */
#define LIMIT_TYPE_BYTES ((size_t)256)		 /* a type is a name, not data */
#define LIMIT_CONTENT_TYPE_BYTES ((size_t)256)	 /* the same */
#define LIMIT_ACTOR_BYTES ((size_t)256)		 /* who appended: a name from authentication */
#define LIMIT_KEY_ID_BYTES ((size_t)256)	 /* a name, not a key */
#define LIMIT_METADATA_BYTES (64 * KIB)		 /* keys and values of one record in sum */
#define LIMIT_RECORD_BYTES (3 * MIB)		 /* below the 4 MiB that gRPC clients accept */
#define LIMIT_APPEND_BYTES (16 * MIB)		 /* one atomic append */
#define LIMIT_APPEND_RECORDS ((size_t)10000)	 /* the same, in records */
#define LIMIT_BATCH_BYTES (4 * MIB)		 /* one group commit; a single append may exceed it */
#define LIMIT_BATCH_APPENDS ((size_t)4096)	 /* the same, in requests */
#define LIMIT_BATCH_KEYS ((size_t)65536)	 /* the same, in streams and ids that are looked up */
#define LIMIT_SEQUENCER_QUEUE_BYTES (64 * MIB)	 /* beyond it workers stop reading */
#define LIMIT_RESPONSE_BYTES (1 * MIB)		 /* one response of a read, or one record */
#define LIMIT_TAIL_BYTES (16 * MIB)		 /* newest appends kept for subscribers */
#define LIMIT_TAIL_APPENDS ((size_t)16384)	 /* the same, in appends; a power of two */
#define LIMIT_READ_FILTERS ((size_t)1000)	 /* types and prefixes of one read: all are compared */
#define LIMIT_REASON_BYTES ((size_t)1000)	 /* why something was deleted: a sentence or two */
#define LIMIT_ERASE_STREAMS ((size_t)4000)	 /* of a prefix in one atomic act; more are more acts */
#define LIMIT_PAGE_ITEMS ((size_t)1000)		 /* one page of a unary list */
#define LIMIT_SERVICE_NAME_BYTES ((size_t)400)	 /* part of a stream's name, with room for a prefix */
#define LIMIT_SESSION_SERVICES ((size_t)1000)	 /* that one process serves */
#define LIMIT_SESSION_ADDRESS_BYTES ((size_t)300) /* a host's name and a port */
#define LIMIT_SESSION_TTL_MIN_MS 100		 /* shorter than a slow sync it would end by itself */
#define LIMIT_SLOTS 65536			 /* of one service: a table in memory */
#define LIMIT_APPEND_FENCES ((size_t)100)	 /* of one append; an owner has one */
#define LIMIT_GROUP_WAITING ((size_t)10000)	 /* streams of a group that wait; then it stops and says so */
#define LIMIT_GROUP_WINDOW ((size_t)1000)	 /* records that one consumer may have unacknowledged */
#define LIMIT_GROUP_PARTITIONS ((size_t)64)	 /* of a group: each costs its consumer a read of the log */
#define LIMIT_GROUP_NAME_BYTES ((size_t)300)	 /* part of a service's and streams' names */
#define LIMIT_PARK_REASON_BYTES ((size_t)1000)	 /* a line for people */
#define LIMIT_CLAIM_SLOTS ((size_t)4096)	 /* claimed or released by one call: a batch */
#define LIMIT_SESSION_TTL_MAX_MS 3600000	 /* longer, nobody would notice that a process is gone */

/* storage */
#define LIMIT_FRAME_BYTES (20 * MIB)		 /* one commit on disk: an append and its encoding */
#define LIMIT_FILE_SEGMENTS_OPEN ((size_t)32)	 /* files open for reading, with their tables of places */
#define LIMIT_FILE_RECENT_BYTES (16 * MIB)	 /* of log whose facts are in memory, before they are moved */
#define LIMIT_FILE_RECENT_RECORDS ((size_t)65536) /* the same, in records */
#define LIMIT_FILE_FACTS ((size_t)32768)	 /* streams whose newest sequence is kept in memory */

/* grpc */
#define LIMIT_GRPC_MESSAGE_BYTES (20 * MIB)	 /* an append of 16 MiB and its framing */
#define LIMIT_HEADER_BYTES (16 * KIB)		 /* one request's header list */
#define LIMIT_HEADERS ((size_t)128)		 /* the same, in headers, on HTTP/1 */
#define LIMIT_STATUS_BYTES (7 * KIB)		 /* a grpc-message on the wire: clients take 8 KiB of headers */
#define LIMIT_CONNECTION_BUFFER_BYTES (64 * MIB) /* unfinished requests of one connection, in sum */
#define LIMIT_RESEND_BYTES (64 * KIB)		 /* of a call, kept until the server's first word */
#define LIMIT_STREAMS_PER_CONNECTION 1000	 /* bounds the memory of one connection */
#define LIMIT_REQUEST_SILENCE_MS 60000		 /* of an HTTP/1 client in the middle of its request */
#define LIMIT_CONNECTION_TURN_BYTES (256 * KIB)	 /* read from one connection before the others' turn */

/* pbdyn, proxy */
#define LIMIT_POOL_BYTES (128 * MIB)		 /* what a function's descriptors may take in memory */
#define LIMIT_NESTING 100			 /* messages and JSON in one another; protobuf's own limit */
#define LIMIT_FUNCTION_MESSAGE_BYTES (12 * MIB)	 /* the reference proxy's limit */
#define LIMIT_HTTP_BODY_BYTES (12 * MIB)	 /* what the function would take */
#define LIMIT_EVENTS_SILENCE_MS 15000		 /* then a comment, so that proxies on the way do not give up */
#define LIMIT_ENTITY_QUEUE ((size_t)1000)	 /* commands that wait for one entity */
#define LIMIT_CRDT_STREAMS ((size_t)16384)	 /* clients' streams that one CRDT has open */
#define LIMIT_EVENTS_IN_HAND_BYTES (4 * MIB)	 /* of one source, with this proxy; then the journal waits */
#define LIMIT_TOPIC_NAME_BYTES ((size_t)200)	 /* part of streams' and groups' names */
#define LIMIT_CLOUD_EVENT_BYTES (8 * MIB)	 /* a topic's event decoded: its data, and a list of its metadata */
#define LIMIT_PUBLISHING_BYTES (16 * MIB)	 /* of events on their way to topics; then the next ones wait */
#define LIMIT_TOPICS_COUNTED ((size_t)1000)	 /* that metrics name: a function may come with others every day */
#define LIMIT_FORWARD_DEPTH 32			 /* hops of one command */
#define LIMIT_ANSWERS_BYTES (24 * MIB)		 /* answers of one stream that wait for its client */

#endif
