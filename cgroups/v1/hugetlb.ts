import { type ReadFile, readOptional, writeOptional } from '../io.ts';
import { parseUint } from '../parse.ts';
import type { HugepageStats, Resources } from '../types.ts';

/** Page sizes that the cgroup has no files of are left out. */
export function stats(
  dir: string,
  pageSizes: readonly string[],
  read: ReadFile = readOptional,
): HugepageStats[] {
  return pageSizes.flatMap((pageSize) => {
    const uint = (file: string) => parseUint(read(dir, `hugetlb.${pageSize}.${file}`));
    const usageBytes = uint('usage_in_bytes');
    return usageBytes === undefined
      ? []
      : [{ pageSize, usageBytes, maxUsageBytes: uint('max_usage_in_bytes') }];
  });
}

/**
 * A page size without a file is skipped: the kubelet sends a limit of 0 for every size it knows, also
 * where the kernel has no hugetlb controller and so nothing to limit.
 */
export async function update(dir: string, r: Resources): Promise<void> {
  for (const { pageSize, limitBytes } of r.hugepageLimits ?? []) {
    await writeOptional(dir, `hugetlb.${pageSize}.limit_in_bytes`, `${limitBytes}`);
    // Reservations are limited too since kernel 5.7, or a process dies by SIGBUS instead of failing mmap.
    await writeOptional(dir, `hugetlb.${pageSize}.rsvd.limit_in_bytes`, `${limitBytes}`);
  }
}
