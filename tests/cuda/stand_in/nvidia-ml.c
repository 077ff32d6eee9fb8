/* libnvidia-ml: the driver's own version, STAND_IN_DRIVER_RELEASE; "580.65.06". */
#include "machine.h"

enum { SUCCESS = 0 };

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *version, unsigned room) {
    const char *release = getenv("STAND_IN_DRIVER_RELEASE");
    snprintf(version, room, "%s", release && *release ? release : "580.65.06");
    return SUCCESS;
}
