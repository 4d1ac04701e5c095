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
    const usageBytes = parseUint(read(dir, `hugetlb.${pageSize}.current`));
    return usageBytes === undefined ? [] : [{ pageSize, usageBytes, maxUsageBytes: undefined }];
  });
}

/**
 * A page size without a file is skipped: the kubelet sends a limit of 0 for every size it knows, also
 * where the hugetlb controller is not enabled and so nothing can be limited.
 */
export async function update(dir: string, r: Resources): Promise<void> {
  for (const { pageSize, limitBytes } of r.hugepageLimits ?? []) {
    await writeOptional(dir, `hugetlb.${pageSize}.max`, `${limitBytes}`);
    // Reservations are limited too since kernel 5.7, or a process dies by SIGBUS instead of failing mmap.
    await writeOptional(dir, `hugetlb.${pageSize}.rsvd.max`, `${limitBytes}`);
  }
}
