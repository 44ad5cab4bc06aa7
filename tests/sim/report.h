/* tests/sim/report.h -- how a run that failed gets out: from anywhere in it, back to main.c. */
#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include <setjmp.h>

extern jmp_buf report_failed; /* set before a run */
extern char report_why[512];

#endif
