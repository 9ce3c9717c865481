/* How far the groups that are consumed here are, for the metrics: a line each partition, for the first hundred of them,
 * and one for how far the others are at most, so that a journal with many groups does not drown its metrics.
 * Any thread. Private to the service. */
#ifndef CAIRN_JOURNAL_GROUP_METER_H
#define CAIRN_JOURNAL_GROUP_METER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/list.h"

struct group_meter {
	pthread_mutex_t lock;
	struct list places;
};
struct group_place {
	struct list_node node; /* under the meter's lock, as what follows but the last */
	struct span group;     /* borrowed until it is removed */
	uint32_t partition;
	_Atomic uint64_t below;
};

void group_meter_init(struct group_meter *m);
void group_meter_release(struct group_meter *m);
void group_meter_add(struct group_meter *m, struct group_place *place);
void group_meter_set(struct group_place *place, uint64_t below);
void group_meter_remove(struct group_meter *m, struct group_place *place); /* one that was not added is no error */
/* As Prometheus has it, behind what there is. */
enum err_code group_meter_render(struct group_meter *m, uint64_t head, struct buf *out);

#endif
