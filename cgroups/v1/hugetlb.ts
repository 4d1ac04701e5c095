import { writeOptional } from '../io.ts';
import type { Resources } from '../types.ts';

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
