/* Reads a profile, one word per line, and writes libseccomp's program for one architecture: the second opinion. */
#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* usage: libseccomp ARCH DEFAULT < rules > program
 * A rule is "NAME ACTION COUNT" and COUNT times " INDEX OP VALUE TWO"; names unknown to libseccomp go to stderr. */
int main(int argc, char **argv)
{
	char name[128];
	unsigned action, count;

	if (argc != 3)
		return 2;
	scmp_filter_ctx ctx = seccomp_init((uint32_t)strtoul(argv[2], NULL, 0));
	uint32_t arch = seccomp_arch_resolve_name(argv[1]);
	if (!ctx || !arch)
		return 3;
	if (arch != seccomp_arch_native() && (seccomp_arch_add(ctx, arch) || seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE)))
		return 4;
	while (scanf("%127s %u %u", name, &action, &count) == 3) {
		struct scmp_arg_cmp args[6];
		for (unsigned i = 0; i < count; i++) {
			unsigned index, op;
			unsigned long long value, two;
			if (scanf("%u %u %llu %llu", &index, &op, &value, &two) != 4)
				return 5;
			args[i] = (struct scmp_arg_cmp){ index, (enum scmp_compare)op, value, two };
		}
		int number = seccomp_syscall_resolve_name(name);
		if (number == __NR_SCMP_ERROR) {
			fprintf(stderr, "%s\n", name);
			continue;
		}
		int failed = seccomp_rule_add_array(ctx, action, number, count, args);
		if (failed && failed != -EEXIST)
			return 6;
	}
	return seccomp_export_bpf(ctx, 1) ? 7 : 0;
}
