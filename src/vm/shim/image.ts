import { BerthError } from '../../errors.ts';
import type { GuestImage } from '../types.ts';

export async function guestImage(dir: string): Promise<GuestImage> {
  throw new BerthError('precondition', `vm.guest_dir: ${dir} has no guest image: run "berth vm build-guest"`);
}
